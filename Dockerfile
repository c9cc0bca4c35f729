# A worker in a container. Build it from the sources, then put your application beside it:
#
#     FROM stem_iso
#     COPY --chown=stem . /app
#     CMD ["-A", "thumbs:app", "--broker", "sqlite:////data/jobs.db"]        # or redis://HOST/0: then workers on more than one machine
#
#     docker run -v jobs:/data IMAGE
#
# The launcher is process 1 and needs no init: it reaps whatever falls to it. `docker stop` sends TERM and kills after 10 s, while a worker
# lets its tasks run for 25: give `--stop-timeout 40`, or STEM_ISO_SHUTDOWN_TIMEOUT=8.
#
# Metrics and probes: STEM_ISO_METRICS_PORT=9100. The dashboard: `--entrypoint stem-iso IMAGE dashboard --host 0.0.0.0`, with
# STEM_ISO_DASHBOARD_TOKEN. With Redis, and under Compose or Kubernetes: docs/deploy.md.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY stem_iso ./stem_iso
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[cron,fast,metrics,dashboard]'

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links=/wheels 'stem_iso[cron,fast,metrics,dashboard]' \
    && useradd --create-home --uid 1000 stem \
    && install -d -o stem -g stem /app /data
USER stem
WORKDIR /app
ENV PYTHONUNBUFFERED=1
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "stem_iso.worker"]
CMD ["--help"]
