"""The domain's document: one class an element; :mod:`~hostel.model.domain.domain` has the root."""
