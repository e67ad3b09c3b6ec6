package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhoGetsABrowser(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		gets bool
	}{
		"Screen":     {map[string]string{"DISPLAY": ":99"}, true},
		"Wayland":    {map[string]string{"WAYLAND_DISPLAY": "wayland-0"}, true},
		"NoScreen":   {map[string]string{"SSH_CONNECTION": "10.0.0.1 22 10.0.0.2 22"}, false},
		"NotWanted":  {map[string]string{"DISPLAY": ":99", "OPEN": "0"}, false},
		"Continuous": {map[string]string{"DISPLAY": ":99", "CI": "true"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "OPEN", "CI"} {
				t.Setenv(variable, tc.env[variable])
			}
			require.Equal(t, tc.gets, browser() != nil)
		})
	}
}
