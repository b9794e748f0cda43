package testlab

import (
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
)

// Key is a kind of authenticator.
type Key struct {
	Plugged  bool // a key at the USB port; otherwise part of the device
	Discover bool // it keeps passkeys, so that no name has to be typed
	Verifies bool // it asks who its owner is: by a finger, a face, a PIN
}

// The usual kinds.
var (
	// DeviceKey is what phones and computers have, and where passkeys live.
	DeviceKey = Key{Discover: true, Verifies: true}
	// PlainKey is a small key of the old kind: it proves to be there, and no more.
	PlainKey = Key{Plugged: true}
)

// Authenticator is a virtual one, which its owner always touches when it asks.
type Authenticator struct {
	page *Page
	id   webauthn.AuthenticatorID
}

// Authenticator gives the page's person an authenticator.
func (p *Page) Authenticator(k Key) *Authenticator {
	p.t.Helper()
	do(p, webauthn.Enable, webauthn.EnableParams{})
	o := &webauthn.VirtualAuthenticatorOptions{Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: k.Discover, HasUserVerification: k.Verifies, IsUserVerified: k.Verifies, AutomaticPresenceSimulation: true}
	if k.Plugged {
		o.Transport = webauthn.AuthenticatorTransportUsb
	}
	return &Authenticator{p, do(p, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: o}).AuthenticatorID}
}

// Credentials are what it keeps, with private keys.
func (a *Authenticator) Credentials() []*webauthn.Credential {
	a.page.t.Helper()
	return do(a.page, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: a.id}).Credentials
}

// Add puts credentials of another authenticator into this one: as a passkey comes to another device, or as a thief's copy.
func (a *Authenticator) Add(credentials ...*webauthn.Credential) *Authenticator {
	a.page.t.Helper()
	for _, c := range credentials {
		do(a.page, addCredential, addCredentialParams{a.id, credential{c.CredentialID, c.IsResidentCredential, c.RpID, c.PrivateKey, c.UserHandle, c.SignCount}})
	}
	return a
}

// addCredential is webauthn.AddCredential without an extension that the library names in each call, and Chromium's authenticators refuse.
var addCredential = cdp.Command[addCredentialParams, cdp.Empty]{Method: webauthn.AddCredential.Method}

type addCredentialParams struct {
	AuthenticatorID webauthn.AuthenticatorID `json:"authenticatorId"`
	Credential      credential               `json:"credential"`
}

type credential struct {
	ID          []byte  `json:"credentialId"`
	Discover    bool    `json:"isResidentCredential"`
	RelyingOn   string  `json:"rpId"`
	PrivateKey  []byte  `json:"privateKey"`
	UserHandle  []byte  `json:"userHandle,omitempty"`
	SignCounter float64 `json:"signCount"`
}

// Verify says whether the person is recognized from now on.
func (a *Authenticator) Verify(yes bool) {
	a.page.t.Helper()
	do(a.page, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: yes})
}

// Remove takes the authenticator away from the page.
func (a *Authenticator) Remove() {
	a.page.t.Helper()
	do(a.page, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: a.id})
}
