"""The DynamoDB wire: HTTP, signatures, operations by family, validation, wire errors."""
