package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	libversion "github.com/docker/cli/cli/version"
	"github.com/sirupsen/logrus"

	"isle/internal/version"
)

// Exit statuses that the library does not choose itself.
const (
	exitFailure = 1
	exitSignal  = 128 // plus the signal's number
)

// signalled is the cause of a context that a signal ended.
type signalled struct{ signal syscall.Signal }

func (s signalled) Error() string { return "stopped by signal " + s.signal.String() }

// Main runs isle with args and returns its exit status: that of the container
// for run and exec, 125 when isled refused, 126 and 127 when the command in the
// container could not be executed or found, 128+n after signal n.
func Main(ctx context.Context, args []string) int {
	ctx, stop := untilSignal(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dockerCLI, err := newDockerCLI(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "isle:", err)
		return exitFailure
	}
	err = run(ctx, dockerCLI, args)
	if s, ok := errors.AsType[signalled](context.Cause(ctx)); ok && err != nil && !hasStatus(err) {
		return exitSignal + int(s.signal)
	}
	return report(dockerCLI.Err(), err)
}

// newDockerCLI is the library's client, which calls itself Isle in "isle version".
func newDockerCLI(ctx context.Context) (*command.DockerCli, error) {
	libversion.PlatformName = "Isle"
	libversion.Version, libversion.GitCommit, libversion.BuildTime = version.Version, version.Commit, version.Date
	dockerCLI, err := command.NewDockerCli(command.WithBaseContext(ctx), command.WithUserAgent("Isle-Client/"+version.Version+" (linux)"))
	if err != nil {
		return nil, err
	}
	logrus.SetOutput(dockerCLI.Err())
	return dockerCLI, nil
}

func run(ctx context.Context, dockerCLI *command.DockerCli, args []string) error {
	root := newRoot(dockerCLI)
	top := cli.NewTopLevelCommand(root.Command, dockerCLI, root.opts, root.Flags())
	top.SetArgs(args)
	cmd, rest, err := top.HandleGlobalFlags()
	if err != nil {
		return err
	}
	if err := top.Initialize(defaultHost(root.opts, os.Getenv)); err != nil {
		return err
	}
	go exitOnThirdSignal(ctx, dockerCLI)
	cmd.SetArgs(rest)
	return cmd.ExecuteContext(ctx)
}

// untilSignal is ctx that ends at the first of sigs, with the signal as cause.
func untilSignal(ctx context.Context, sigs ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sigs...)
	go func() {
		defer signal.Stop(ch)
		select {
		case <-ctx.Done():
		case s := <-ch:
			cancel(signalled{s.(syscall.Signal)})
		}
	}()
	return ctx, func() { cancel(nil) }
}

// exitOnThirdSignal leaves when a command does not heed the end of its context.
// It lives as long as the process.
func exitOnThirdSignal(ctx context.Context, streams command.Streams) {
	<-ctx.Done()
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	<-ch
	<-ch
	streams.In().RestoreTerminal()
	streams.Out().RestoreTerminal()
	streams.Err().RestoreTerminal()
	os.Exit(exitFailure)
}

func hasStatus(err error) bool {
	s, ok := errors.AsType[cli.StatusError](err)
	return ok && s.StatusCode != 0
}

// report prints err for a person and returns the exit status that it means.
func report(w io.Writer, err error) int {
	if err == nil || errdefs.IsCanceled(err) {
		return 0
	}
	if text := explain(err); text != "" {
		fmt.Fprintln(w, text)
	}
	if s, ok := errors.AsType[cli.StatusError](err); ok && s.StatusCode != 0 {
		return s.StatusCode
	}
	return exitFailure
}
