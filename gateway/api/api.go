package api

// Prefix is where the API's paths begin.
const Prefix = "/api/v1"
