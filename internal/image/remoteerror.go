package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// remoteError says in Docker's words why a registry did not give us what n
// names, with the class that the API's status follows from. Clients match them.
func remoteError(n reference.Named, err error, credentials bool) error {
	name := reference.FamiliarName(n)
	status, code := registryCode(err)
	denied := func() error {
		return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied: %w", name, errdefs.ErrNotFound)
	}
	switch {
	case err == nil, errors.Is(err, errdefs.ErrInvalidArgument):
		return err
	case code == "NAME_UNKNOWN", code == "DENIED", code == "NAME_INVALID", status == http.StatusForbidden,
		strings.Contains(err.Error(), "insufficient_scope"):
		return denied()
	case errdefs.IsNotFound(err), status == http.StatusNotFound:
		return fmt.Errorf("manifest for %s not found: manifest unknown: %w", reference.FamiliarString(n), errdefs.ErrNotFound)
	case !credentials && (status == http.StatusUnauthorized || errors.Is(err, docker.ErrInvalidAuthorization)):
		return denied() // not 401: Docker's CLI would ask for a password and wait for it
	case status == http.StatusUnauthorized, errors.Is(err, docker.ErrInvalidAuthorization):
		return fmt.Errorf("unauthorized: authentication required for %s: %w: %w", name, err, errdefs.ErrUnauthenticated)
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("toomanyrequests: the registry of %s limits how often one may pull: %w: %w", name, err, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("registry of %s: %w", name, err)
}

// registryCode is what a registry answered: the HTTP status and the first code
// in its body, as far as err knows them.
func registryCode(err error) (status int, code string) {
	var unexpected remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &unexpected) {
		status, code = unexpected.StatusCode, bodyCode(unexpected.Body)
	}
	var list docker.Errors
	if errors.As(err, &list) && len(list) > 0 {
		var one docker.Error
		if errors.As(list[0], &one) {
			code = one.Code.String()
		}
	}
	return status, code
}

func bodyCode(body []byte) string {
	var answer struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	return answer.Errors[0].Code
}
