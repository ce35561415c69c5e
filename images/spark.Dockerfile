# The image of Spark's server and executors, and of prepare_data where they do the work:
# that of prepare_data, with Java and Spark in it. `python -m images.build --spark`
# builds it; this does too, once prepare_data is built:
#
#   docker buildx build -f images/spark.Dockerfile -t safescale-ammt/spark:0.1.0 .
#
# One image on both ends: a function that prepare_data sends is unpacked by the same
# Python, the same PySpark and the same code of ours.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG PREPARE_DATA=safescale-ammt/prepare_data:0.1.0

FROM ${BASE_IMAGE} AS packages
RUN python3 -m venv /opt/builder && mkdir /layer
COPY images/install.sh images/slim.py /opt/builder/
WORKDIR /build
COPY images/requirements/spark.txt images/requirements/pyspark.txt ./
# PySpark has no wheel: its own build packs jars and scripts, nothing is compiled.
RUN --mount=type=bind,source=images/wheels,target=/wheels \
    sh /opt/builder/install.sh --spark spark.txt pyspark.txt

FROM ${PREPARE_DATA} AS spark
USER 0
# Java from Debian's packages, whose signatures apt checks; images/wheels/debian may hold
# them, for a base without apt or a build without a network. Java's package links pages
# of a manual, into a folder that a slim base has not.
RUN --mount=type=bind,source=images/wheels,target=/wheels \
    export DEBIAN_FRONTEND=noninteractive && mkdir -p /usr/share/man/man1 && \
    if ls /wheels/debian/*.deb >/dev/null 2>&1; then dpkg --install /wheels/debian/*.deb; \
    else apt-get update && apt-get install --yes --no-install-recommends \
      openjdk-17-jre-headless tini && rm -rf /var/lib/apt/lists/*; fi >/dev/null
COPY --from=packages /layer /opt/safescale/lib/python3.11/site-packages
COPY images/spark_executor.py /opt/safescale/
# Workers find PySpark and our code beside their Python, and Hadoop the user in
# /etc/passwd, where the base has put it.
ENV SPARK_HOME=/opt/safescale/lib/python3.11/site-packages/pyspark \
    PYSPARK_PYTHON=/opt/safescale/bin/python3
USER 10001:0
ENTRYPOINT ["tini", "-s", "--", "python3", "/opt/safescale/spark_executor.py"]
LABEL org.opencontainers.image.title="safescale-ammt/spark" \
      org.opencontainers.image.description="Spark's server and executors for prepare_data"
