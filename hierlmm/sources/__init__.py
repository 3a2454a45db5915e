"""Tables that are not in memory: engines that answer questions about all rows and stream cross-products."""
