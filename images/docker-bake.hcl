// The five images at once, on a machine that reaches its registries:
//
//   env $(python -m images.labels) docker buildx bake -f images/docker-bake.hcl
//
// A release, and the lock that `safescale compile --images` pins it by:
//
//   export PREFIX=registry.example.org/team
//   env $(...) docker buildx bake -f ... --push --metadata-file meta.json
//   python -m images.lock meta.json $PREFIX
//
// Without the environment of images.labels the labels stay empty. The context is the
// repository's root, where .dockerignore leaves in only what an image is made of.

variable "PREFIX" {
  default = "safescale-ammt"
}
variable "VERSION" {
  default = "0.1.0"
}
variable "REVISION" {
  default = ""
}
variable "CREATED" {
  default = ""
}
variable "CODE" {
  default = ""
}
// For a release name@sha256:...; `docker buildx imagetools inspect` tells it.
variable "BASE_IMAGE" {
  default = "python:3.11-slim-bookworm"
}
// cpu, or cu130: a file images/requirements/torch-<variant>.txt.
variable "TORCH_VARIANT" {
  default = "cpu"
}
// PyPI has no CPU build of torch; PyTorch's own index has. The hash decides.
variable "TORCH_INDEX" {
  default = "https://download.pytorch.org/whl/${TORCH_VARIANT}"
}
// The requirements hold the hashes of this platform's wheels alone.
variable "PLATFORM" {
  default = "linux/amd64"
}

group "default" {
  targets = [
    "prepare-data",
    "search-architecture",
    "train-agents",
    "evaluate-safety",
    "register-model",
  ]
}

target "stage" {
  context    = "."
  dockerfile = "images/Dockerfile"
  platforms  = [PLATFORM]
  args = {
    BASE_IMAGE    = BASE_IMAGE
    TORCH_VARIANT = TORCH_VARIANT
    TORCH_INDEX   = TORCH_INDEX
  }
  labels = {
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.created"  = CREATED
    "safescale-ammt.code"               = CODE
  }
}

target "prepare-data" {
  inherits = ["stage"]
  target   = "prepare-data"
  tags     = ["${PREFIX}/prepare_data:${VERSION}"]
}

target "search-architecture" {
  inherits = ["stage"]
  target   = "search-architecture"
  tags     = ["${PREFIX}/search_architecture:${VERSION}"]
}

target "train-agents" {
  inherits = ["stage"]
  target   = "train-agents"
  tags     = ["${PREFIX}/train_agents:${VERSION}"]
}

target "evaluate-safety" {
  inherits = ["stage"]
  target   = "evaluate-safety"
  tags     = ["${PREFIX}/evaluate_safety:${VERSION}"]
}

target "register-model" {
  inherits = ["stage"]
  target   = "register-model"
  tags     = ["${PREFIX}/register_model:${VERSION}"]
}
