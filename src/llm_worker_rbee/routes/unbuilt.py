"""The worker's route that is still to come."""

from rbee_shared.unbuilt_routes import unbuilt_routes

router = unbuilt_routes("POST /v1/embed")
