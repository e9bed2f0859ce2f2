package cms

var (
	DeriveKey  = deriveKey
	SharedInfo = sharedInfo
	WrapKey    = wrapKey
	UnwrapKey  = unwrapKey
)
