"""DynamoDB's operations by family: each is ``async (tables, caller, body) -> answer``."""
