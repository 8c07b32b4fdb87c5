# vmsim in a container: every dependency pinned by hash; runs as nobody in particular, and writes nowhere but to /tmp, so
# that the root file system may be read-only.
FROM python:3.13.12-slim-trixie AS base

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies come first: they change seldom, so this layer is mostly cached. None is compiled; every one has a wheel.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/vmsim \
    && pip --python /opt/vmsim/bin/python install --only-binary :all: --require-hashes -r requirements.lock \
    && pip install --only-binary :all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY manifests/crds manifests/crds
COPY manifests/examples manifests/examples
COPY manifests/kwok/pod-ready-again.yaml manifests/kwok/pod-ready-again.yaml
COPY manifests/scenarios manifests/scenarios
COPY manifests/schedulers manifests/schedulers
COPY controller controller
RUN python -m hatchling build -t wheel -d dist \
    && pip --python /opt/vmsim/bin/python install --no-deps --no-index dist/*.whl

FROM base
LABEL org.opencontainers.image.title="vmsim" \
      org.opencontainers.image.description="Simulated virtual machines on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/vmsim /opt/vmsim
# The user has no name and no home, so the places that look for one are told where.
ENV PATH=/opt/vmsim/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["vmsim"]
# On every address of the container; who may reach it is the affair of whoever publishes the port.
CMD ["controller", "--metrics-bind-address", "0.0.0.0:8080"]
