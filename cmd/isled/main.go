// Command isled is the daemon. This is the only place where the concrete parts
// meet; everything else knows the others by small interfaces.
//
// isled may be stopped, killed or upgraded at any moment: containers, their
// networks and their logs go on without it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"isle/internal/config"
	"isle/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "isled:", err)
		os.Exit(1)
	}
}

// flags are what the command line may say over the configuration file.
type flags struct {
	file, dataDir, runDir, logLevel string
	hosts                           []string
}

func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:           "isled",
		Short:         "Isle's daemon: containers and their networks behind a Docker-compatible API",
		Example:       "  isled\n  isled --config /etc/isle/isled.toml --log-level debug\n  isled --data-dir /tmp/d --run-dir /tmp/r --host unix:///tmp/r/isle.sock",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, logger(c.LogLevel))
		},
	}
	p := cmd.PersistentFlags()
	p.StringVar(&f.file, "config", config.File, "configuration `file`")
	p.StringVar(&f.dataDir, "data-dir", "", "`directory` for images, volumes and records")
	p.StringVar(&f.runDir, "run-dir", "", "`directory` for sockets, namespaces and bundles")
	p.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error")
	p.StringArrayVarP(&f.hosts, "host", "H", nil, "where the API listens, `unix:///path` or tcp://addr:port; may be repeated")
	cmd.AddCommand(configCommand(&f), versionCommand())
	return cmd
}

func configCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use: "config", Short: "Print the effective configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), c)
			return nil
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "isled %s, commit %s, built %s\n", version.Version, version.Commit, version.Date)
		},
	}
}

// load reads the file and puts the flags over it.
func (f *flags) load() (config.Config, error) {
	c, err := config.Load(f.file)
	if err != nil {
		return c, err
	}
	for to, v := range map[*string]string{&c.DataDir: f.dataDir, &c.RunDir: f.runDir, &c.LogLevel: f.logLevel} {
		if v != "" {
			*to = v
		}
	}
	if len(f.hosts) > 0 {
		c.Hosts = f.hosts
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"unix://" + c.Socket()}
	}
	return c, config.Located(c.Check(), f.file)
}

func logger(level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

// serve runs the daemon until ctx is done.
func serve(ctx context.Context, c config.Config, log *slog.Logger) error {
	if os.Geteuid() != 0 {
		return errors.New("isled needs root; hint: sudo isled, or sudo systemctl start isled")
	}
	debug.SetGCPercent(50) // a daemon that idles beside 300 containers: memory before speed
	if err := directories(c); err != nil {
		return err
	}
	h, err := build(c, log)
	if err != nil {
		return err
	}
	return errors.Join(h.run(ctx), h.close())
}

// directories makes the two that all others are in. Programs in images may be
// set-uid and files world-writable: nobody but root may come to them by way of
// the data directory.
func directories(c config.Config) error {
	for dir, mode := range map[string]os.FileMode{c.DataDir: 0o710, c.RunDir: 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}
