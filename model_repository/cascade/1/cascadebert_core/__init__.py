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
    windows           long texts: windows of tokens, and the logits of all of them
    batching          rows to calls of a stage, and their padding
    task              logits to probabilities, and what an answer is
    signals           confidence signals
    gate              logits to answers: exit or defer
    answer            answers to response tensors

Run: when each row's stages run
    job               a request and its rows
    cascade           ties the modules below together
    admission         whether new rows run at once or are queued
    deferral          the queue of a stage and its threads
    runner            rows through one stage
    stage             one stage: tokens, calls, gate
    parallel          concurrent calls of the first stage
    inline            stages that run in the cascade's own process
    shares            one instance's share of the limits, if there are several
    latency           how long a stage takes
    deadlines         which requests are still worth a call
    expiry            ends requests at their deadline
    under_load        another operating point while much is waiting
    degradation       rows that no further stage answers
    caller            Triton's response sender

Observe: what happened
    observer          the events that the cascade reports
    metrics           counts the events
    histogram         counts values in buckets
    metrics_exporter  writes the counts to Triton's metrics endpoint
    confidence_sequence  intervals of a rate that are valid at every moment at once
    drift_state       the files that remember a broken guarantee
    drift             a broken guarantee: another route until an operator ends it
    audit             compares a sample of answers with the last stage's
    request_log       writes a line for each request to the server's log
    timeline          how one answer came about, if its request asks for it
"""
