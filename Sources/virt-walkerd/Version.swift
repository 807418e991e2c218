import CharacterDeviceServer

/// The version number, by semantic versioning. CHANGELOG.md lists the changes of each version, and the Debian package
/// takes its number from this line.
let versionNumber = "1.0.0"

/// The text of `--version`. The commit ends in `-dirty` if files differed from it, and is `unknown` outside a checkout.
let version = "\(versionNumber) (commit \(sourceCommit), libfuse \(LibFuse.version))"
