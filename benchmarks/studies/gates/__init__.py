"""Which gate defers least for the same promise: confidence, a fitted one, agreement, a blend?"""
