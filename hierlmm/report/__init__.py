"""From a file to a folder of results: reading data, fitting with progress shown, writing tables, draws and plots."""
