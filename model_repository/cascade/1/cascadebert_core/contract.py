"""Names on the wire and on disk: tensors, parameters, files.

Only the standard library is needed here. The names of metrics are in `metric_names`, those of goals
in `guarantee`, and the keys of published operating points in `published_points`.
"""

from __future__ import annotations

# The cascade model. A batch dimension comes before every shape.
TEXT = "TEXT"  # BYTES [1]
TEXT_PAIR = "TEXT_PAIR"  # BYTES [1], of a task of pairs

# The most bytes in all texts of one request. Texts are tokenised whole before they are truncated,
# while all other requests wait: one megabyte takes up to half a second.
MAX_TEXT_BYTES = 1 << 20

PROBABILITIES = "PROBABILITIES"  # FP32 [labels], in the policy's label order
LABEL = "LABEL"  # BYTES [1]; of a multi-label cascade, a JSON array of the labels in the set
CONFIDENCE = "CONFIDENCE"  # FP32 [1]
EXIT_STAGE = "EXIT_STAGE"  # INT32 [1], 0-based
DEGRADED = "DEGRADED"  # BOOL [1], answered below the requested threshold
POLICY = "POLICY"  # BYTES [1], the policy's id
OUTPUTS = (PROBABILITIES, LABEL, CONFIDENCE, EXIT_STAGE, DEGRADED, POLICY)
# BYTES [1], JSON: how the answer came about, see `timeline`. Only for a request that asks for it.
TIMELINE = "TIMELINE"
# BYTES [1], the operating point that decided; empty if the request had thresholds or a stage of its
# own. Only cascades whose policies all have `under_load` declare it.
DECIDED_BY = "OPERATING_POINT"

# Request parameters; a request has at most one of them.
OPERATING_POINT = "operating_point"  # string
# A number, as a number or a string, for every stage but the last; or a string of numbers that are
# separated by commas, one for each of these stages.
THRESHOLD = "threshold"
STAGE = "stage"  # integer: only this stage answers
ROUTE_PARAMETERS = (OPERATING_POINT, THRESHOLD, STAGE)
# Besides them.
EXPLAIN = "explain"  # boolean: all outputs include TIMELINE
TRACEPARENT = "traceparent"  # W3C's trace context; the request's log line names the trace
BESIDE_ROUTE = (EXPLAIN, TRACEPARENT)

# The stage models. Inputs are INT32 [length], the output is FP32 [labels].
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
STAGE_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
LOGITS = "logits"

# Why a row was answered below its threshold: the queue of its next stage was full, its deadline
# was too near, or the stage failed.
OVERLOAD = "overload"
DEADLINE = "deadline"
FAULT = "fault"
DEGRADED_BY = (OVERLOAD, DEADLINE, FAULT)

# Parameters in the cascade's config.pbtxt.
CALLS_IN_FLIGHT = "calls_in_flight"  # concurrent calls of each stage but the first
FIRST_CALLS = "first_calls"  # concurrent calls of the first stage
INLINE = "inline"  # which stages run in the cascade's own process, one of INLINE_STAGES
INLINE_THREADS = "inline_threads"  # threads of each of their calls
INLINE_NICENESS = "inline_niceness"  # of the threads of later stages, on Linux's scale
LOG_REQUESTS = "log_requests"  # one of request_log.LEVELS
LOG_TEXT = "log_text"  # "true": log lines hold the texts
METRICS_PORT = "metrics_port"  # of the embedded server that has loaded the cascade
SET_BY_SERVE = "set_by_serve"  # the parameters that `serve` set, with commas; `load` keeps them
OPERATING_POINTS = "operating_points"  # JSON, see `published_points`; a certificate's key too
COST_CURVE = "cost_curve"  # JSON, see `published_points`; a certificate's key too
VERDICTS = (
    "verdicts"  # JSON: what does not pay, [{kind, subject, text, help}]; a certificate's key too
)
POLICY_ID = "policy"  # the policy's id
LABELS = "labels"  # JSON: the policy's labels, in the order of PROBABILITIES
LABELS_BY_POLICY = "labels_by_policy"  # JSON: the same of other versions that are served, by id
TASK = "task"  # "multi_label"; a single-label cascade has no such parameter

INLINE_NONE = "none"
INLINE_FIRST = "first"
INLINE_ALL = "all"
INLINE_STAGES = (INLINE_NONE, INLINE_FIRST, INLINE_ALL)

# Files of a cascade's version folder.
POLICY_FILE = "policy.json"
LABELS_FILE = "labels.txt"  # one label a line, for Triton's classification extension
TOKENIZERS_FOLDER = "tokenizers"
TOKENIZER_FILE = "tokenizer.json"
