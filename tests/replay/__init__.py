"""What a real plane answered to this product, and a server that answers it again.

`recorded/` holds 27 flows of 2026-11-29: Kubernetes 1.34.4, Argo Workflows 4.0.8,
Kubeflow Pipelines' master of 2026-08-21 (7b70c7b95f, 160 commits after 2.17.0,
multi-user, MariaDB), Trainer 2.3.0, JobSet 0.12.0. A flow is a list of exchanges in
order (a watch: of events). Our own pipeline and long values are replaced by their
length, secrets by theirs; an answer that came often is there once with `times`, and
long polls are shortened to their states.

    recordings.py   reads a flow, and puts back what was left out
    server.py       answers a flow over HTTP, in its order
    shapes.py       names and types of an answer, to compare two servers by
"""
