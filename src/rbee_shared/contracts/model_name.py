"""How requests name a model: `model`, or `model_ref` as the oldest documents write it."""

from typing import Self

from pydantic import Field, model_validator

from rbee_shared.contracts.base import Wire


class NamesModel(Wire):
    """Exactly one of the two."""

    model: str | None = Field(default=None, min_length=1, max_length=1024)
    model_ref: str | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.model_ref is None):
            raise ValueError("give model, or model_ref as another name for it")
        return self

    @property
    def chosen_model(self) -> str:
        return self.model or self.model_ref or ""
