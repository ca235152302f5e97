# A CPU image:
#   docker build --tag pointtrack .
#   docker run --rm --user "$(id -u)" --volume "$PWD:/data" pointtrack track video.mp4 --grid 16
FROM python:3.13-slim AS build
# Torch without CUDA: the one of PyPI brings 4 GB of it. Nothing is compiled yet: all modules would be 250 MB.
RUN python -m venv /opt/ptrack \
    && /opt/ptrack/bin/pip install --no-cache-dir --no-compile "torch>=2.10" "torchvision>=0.25" \
        --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE /src/
COPY configs /src/configs
COPY ptrack /src/ptrack
RUN /opt/ptrack/bin/pip install --no-cache-dir --no-compile /src
# Not needed: what builds C++ against torch, and other packages' tests, 170 MB. That nothing is missing, and which modules
# to compile, a run shows.
WORKDIR /tmp
RUN rm -r /opt/ptrack/lib/python3*/site-packages/torch/include \
    && find /opt/ptrack/lib/python3*/site-packages/ -name tests -type d -prune -exec rm -r {} + \
    && /opt/ptrack/bin/ptrack track demo --grid 16

FROM python:3.13-slim
COPY --from=build /opt/ptrack /opt/ptrack
RUN useradd --create-home --uid 1000 ptrack && install --directory --owner ptrack /data
USER 1000
# Any --user may run it: caches go where everybody may write.
ENV PATH=/opt/ptrack/bin:$PATH XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib HF_HOME=/tmp/cache/huggingface
WORKDIR /data
ENTRYPOINT ["ptrack"]
CMD ["--help"]
