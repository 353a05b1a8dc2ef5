"""A table's rows made into pictures by one task: read, rendered, remembered, submitted, stored and listed."""
