"""What the server decides: pure Python and numpy, without Triton or torch.

The BLS model runs this code inside the server, and the offline evaluator runs the same code.
The congruence tests compare the two.

Contract: names that clients, build and containers share
    contract          tensors, parameters and files
    metric_names      metrics
    guarantee         goals of operating points
    published_points  operating points in the published configuration
    errors            the errors that end a request

Decide: what a row's answer is
    policy            policy.json: stages, labels, thresholds
    inputs            request tensors to texts
    route             request parameters to stages and thresholds
    tokenization      texts to tokens
    batching          rows to calls of a stage, and their padding
    signals           confidence signals
    gate              logits to answers: exit or defer
    answer            answers to response tensors

Run: when each row's stages run
    job               a request and its rows
    cascade           ties the stages together
    stage             one stage: tokens, calls, gate
    admission         whether rows run at once or queue
    deferral          the queue of a stage and its threads
    parallel          concurrent calls of the first stage
    latency           how long a stage takes
    expiry            ends requests at their deadline
    caller            the client's connection, through Triton

Observe: what happened
    observer          the events
    metrics           counts of them
    histogram         counts in buckets
    metrics_exporter  counts to Triton's endpoint
    audit             compares a sample of answers with the last stage's
    request_log       a line for each request
"""
