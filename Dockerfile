# The README's steps in a container: docker build -t start-agent . && docker run --rm start-agent
# The sandbox is of tier 3 there; docs/explanation/sandbox.md, "Containers", has what tier 1 takes.
FROM python:3.12-slim

RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap make && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/start-agent
COPY . .
RUN make .venv/.demo

# Python and the packages can be read by all users; the model's code runs as another one.
RUN useradd --create-home solver && mkdir /work && chown solver /work
USER solver
WORKDIR /work
ENV PATH=/opt/start-agent/.venv/bin:$PATH

CMD ["start-agent", "pocket", "demo"]
