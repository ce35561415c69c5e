"""Object storage: one contract over S3 buckets, folders and an embedded SeaweedFS."""
