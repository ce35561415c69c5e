"""The constitution: one hashed file of principles that every stage reads."""
