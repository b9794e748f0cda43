package identity_test

import _ "github.com/descope/virtualwebauthn"
