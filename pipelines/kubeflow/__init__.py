"""A Kubeflow from the outside: sessions, runs, schedules, and what it lacks."""
