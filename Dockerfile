# One image per program, each with only what that program needs: targets device, edge, cloud and
# train (the only one with TensorFlow). All can be built for x86-64 and arm64.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/ddnn
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY ddnn ddnn
COPY device_app device_app
COPY edge_app edge_app
COPY cloud_app cloud_app
RUN /opt/ddnn/bin/pip install .

FROM build AS build-device
RUN /opt/ddnn/bin/pip install '.[camera,coding,site]'

FROM build AS build-edge
RUN /opt/ddnn/bin/pip install '.[coding,site]'

FROM build AS build-cloud
RUN /opt/ddnn/bin/pip install '.[cloud,site]'

FROM build AS build-train
RUN /opt/ddnn/bin/pip install '.[train]'

# A volume takes owner and mode from the image's directory: the user can write to it.
FROM ${PYTHON} AS base
RUN groupadd --gid 10001 ddnn \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin ddnn \
    && install -d -o 10001 -g 10001 /state /bundle
ENV PATH=/opt/ddnn/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DDNN_BUNDLE=/bundle DDNN_STATE=/state
WORKDIR /state
USER 10001:10001
STOPSIGNAL SIGTERM

FROM base AS device
COPY --from=build-device /opt/ddnn /opt/ddnn
ENTRYPOINT ["python", "-m", "device_app"]

FROM base AS edge
COPY --from=build-edge /opt/ddnn /opt/ddnn
ENTRYPOINT ["python", "-m", "edge_app"]

FROM base AS cloud
COPY --from=build-cloud /opt/ddnn /opt/ddnn
ENTRYPOINT ["python", "-m", "cloud_app"]

FROM base AS train
COPY --from=build-train /opt/ddnn /opt/ddnn
ENTRYPOINT ["python", "-m", "ddnn.cli", "train"]
