"""Names that go over the wire or lie on disk: the tensors, parameters and files of a cascade."""

from __future__ import annotations

# The cascade model. A batch dimension stands in front of every shape.
TEXT = "TEXT"  # BYTES [1]
TEXT_PAIR = "TEXT_PAIR"  # BYTES [1], optional

# Bytes of all texts of a request. They are tokenised whole, before they are truncated, while all
# other requests wait: a megabyte takes up to half a second.
MAX_TEXT_BYTES = 1 << 20

PROBABILITIES = "PROBABILITIES"  # FP32 [labels], in the policy's label order
LABEL = "LABEL"  # BYTES [1]
CONFIDENCE = "CONFIDENCE"  # FP32 [1]
EXIT_STAGE = "EXIT_STAGE"  # INT32 [1], 0-based
DEGRADED = "DEGRADED"  # BOOL [1], answered below the threshold that was asked for
POLICY = "POLICY"  # BYTES [1], the policy's id
OUTPUTS = (PROBABILITIES, LABEL, CONFIDENCE, EXIT_STAGE, DEGRADED, POLICY)

# Request parameters, at most one of them in a request.
OPERATING_POINT = "operating_point"  # string
THRESHOLD = "threshold"  # string or number, for every non-final stage
STAGE = "stage"  # integer: this stage alone answers
ROUTE_PARAMETERS = (OPERATING_POINT, THRESHOLD, STAGE)

# The stage models. Inputs are INT32 [length], the output FP32 [labels].
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
STAGE_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
LOGITS = "logits"

# Why a row was answered below its threshold: too many rows waited for its next stage, its deadline
# was too near, or the stage failed.
OVERLOAD = "overload"
DEADLINE = "deadline"
FAULT = "fault"
DEGRADED_BY = (OVERLOAD, DEADLINE, FAULT)

# Files of a cascade's version folder.
POLICY_FILE = "policy.json"
TOKENIZERS_FOLDER = "tokenizers"
TOKENIZER_FILE = "tokenizer.json"
