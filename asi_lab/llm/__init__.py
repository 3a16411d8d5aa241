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
    Tool,
    ToolCall,
    TooLong,
    Unreachable,
    Usage,
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
    "TooLong",
    "Tool",
    "ToolCall",
    "Unreachable",
    "Usage",
]
