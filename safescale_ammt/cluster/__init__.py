"""Training in a Kubernetes cluster: a TrainJob of Kubeflow Trainer and its life.

The stage's pod hands its inputs to the object store, makes one TrainJob under
our TrainingRuntime, follows it, and takes the model back from the store:

    handover.py   inputs, request, model: the prefix of one job in the store
    trainjob.py   the job as an object: name, body, what its status says
    life.py       create, adopt, replace, follow, stop
    ending.py     deleted with its pods, failed, or failed with its model whole
    pods.py       which have started, which still run, how they ended
    run_pods.py   the pods of a run on Kubeflow: why it waits, what ended a step
    own_account.py  the API for a pod without the client's package
    owner.py      the pods for which the job works
    waiting.py    why no pod has started yet, and for how long
    reasons.py    why a pod does not run, in the cluster's own words
    logs.py       rank 0's log, whole and once, through broken connections
    watch.py      the job after each change, through 410 Gone and outages
    api.py        calls of the API, tried again in outages
    refusals.py   one sentence for each refusal
    timeouts.py   how long things may take
    resources.py  the kinds of objects that are called
    access.py     the rights that all this needs

Only this package imports `kubernetes`, and only when it connects.
"""
