"""Base of every wire model: unknown fields of a newer peer are ignored, values never change after parsing."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """Read leniently, written exactly."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())
