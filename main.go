// Postern lets mail, calendar and contacts apps log in with app passwords, and logs in to the real stores for them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"postern/gateway/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
