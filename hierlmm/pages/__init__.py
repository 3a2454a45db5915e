"""One HTML file that holds a whole analysis, sections with results and pictures, and asks nothing of a network."""
