import Foundation
import PackagePlugin

/// Writes `let sourceCommit`, the commit that is built, for `virt-walkerd --version`.
@main
struct SourceCommit: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) -> [Command] {
    let directory = context.pluginWorkDirectoryURL
    // An unchanged file is not written, so that nothing is built again.
    let script = """
      commit=$(git -C "$1" describe --always --dirty --exclude '*' --abbrev=12 2>/dev/null) || commit=unknown
      line="let sourceCommit = \\"$commit\\""
      [ "$(cat "$2/SourceCommit.swift" 2>/dev/null)" = "$line" ] || echo "$line" >"$2/SourceCommit.swift"
      """
    return [
      .prebuildCommand(
        displayName: "Asking git for the commit", executable: URL(filePath: "/bin/sh"),
        arguments: ["-c", script, "sh", context.package.directoryURL.path, directory.path],
        outputFilesDirectory: directory)
    ]
  }
}
