import CharacterDeviceServer

/// Semantic versioning; CHANGELOG.md says what each version has. The Debian package takes the number from here.
let versionNumber = "1.0.0"

/// What `--version` prints. The commit ends in `-dirty` where files differed from it, and is `unknown` outside a checkout.
let version = "\(versionNumber) (commit \(sourceCommit), libfuse \(LibFuse.version))"
