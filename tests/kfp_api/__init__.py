"""A Kubeflow Pipelines API over HTTP, for tests."""
