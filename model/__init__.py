"""What the data is: values, numbers, keys, schemas, capacity, versions. Pure; knows no storage."""
