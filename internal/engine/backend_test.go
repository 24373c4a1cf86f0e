package engine_test

import (
	"isle/internal/engine"
	"isle/internal/server"
)

// The engine is what the server asks for, part by part.
var (
	_ server.Containers = (*engine.Engine)(nil)
	_ server.Execs      = (*engine.Engine)(nil)
	_ server.Networks   = (*engine.Engine)(nil)
)
