package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/config"
	"postern/gateway"
)

func serveCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Runs the gateway until SIGTERM or SIGINT, then drains. SIGHUP reads the configuration,
the certificates and the key file again; a faulty configuration is refused and the old one stays.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(e.config)
			if err != nil {
				return err
			}
			level := new(slog.LevelVar)
			log, err := newLogger(c.ErrOrStderr(), cfg, level)
			if err != nil {
				return err
			}
			g, err := gateway.New(c.Context(), cfg, log)
			if err != nil {
				return err
			}
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			go e.reloadOn(c.Context(), hangups, g, level, log)
			return g.Run(c.Context())
		},
	}
}

// reloadOn reads the configuration again at each SIGHUP, until ctx ends.
func (e *env) reloadOn(ctx context.Context, hangups <-chan os.Signal, g *gateway.Gateway, level *slog.LevelVar, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		cfg, err := loadConfig(e.config)
		if err == nil {
			err = g.Reload(ctx, cfg)
		}
		if err != nil {
			log.Error("not reloaded; the old configuration stays in force", "err", err)
			continue
		}
		level.UnmarshalText([]byte(cfg.Log.Level)) // it was checked
		log.Info("reloaded")
	}
}

// newLogger writes text to a terminal and JSON to everything else, unless the configuration says otherwise.
func newLogger(w io.Writer, cfg *config.Config, level *slog.LevelVar) (*slog.Logger, error) {
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	format := cfg.Log.Format
	if f, ok := w.(*os.File); format == "auto" && ok && term.IsTerminal(int(f.Fd())) {
		format = "text"
	}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}
