"""Language models behind one method, `complete`. Knows servers and wire formats, nothing of the search."""

from asi_lab.llm.model import (
    Busy,
    Call,
    Cancelled,
    Message,
    Model,
    ModelError,
    NoTools,
    NotReady,
    Reply,
    TokenUsage,
    Tool,
    ToolCall,
    TooLong,
    Unreachable,
)

__all__ = [
    "Busy",
    "Call",
    "Cancelled",
    "Message",
    "Model",
    "ModelError",
    "NoTools",
    "NotReady",
    "Reply",
    "TokenUsage",
    "TooLong",
    "Tool",
    "ToolCall",
    "Unreachable",
]
