"""From one model to another, step by step, with everything that was looked at in print."""
