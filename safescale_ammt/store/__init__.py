"""Where bytes live: folders, S3 buckets, the embedded SeaweedFS, event logs."""
