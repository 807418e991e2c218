import Foundation
import Subprocess
import SystemPackage
import Testing

/// Tests of Examples/Package as a package outside the repository.
@Suite(.timeLimit(.minutes(15))) struct OutsidePackageTests {
  private static let repository = FilePath(#filePath).removingLastComponent()
    .removingLastComponent().removingLastComponent().removingLastComponent()

  /// Copies the package, makes it depend on this one by path, builds it, and uses its device.
  @Test func packageOutsideServesItsDevice() async throws {
    let script = """
      set -eu
      directory=$(mktemp -d)
      server=
      trap 'kill $server 2>/dev/null || true; rm -rf "$directory"' EXIT
      cp -R "$repository/Examples/Package/." "$directory"
      sed -i "s|path: \\"../..\\"|path: \\"$repository\\"|" "$directory/Package.swift"
      grep -q -F "path: \\"$repository\\"" "$directory/Package.swift"
      scratch=$repository/.build/outside-package
      # An old build plan may name files that no longer exist.
      rm -f "$scratch/debug.yaml"
      swift build --package-path "$directory" --scratch-path "$scratch" >"$directory/build" 2>&1 ||
        { cat "$directory/build" >&2; exit 1; }
      node=$directory/node
      "$scratch/debug/rot13" "$node" >"$directory/log" 2>&1 & server=$!
      tries=0
      until grep -q 'is ready' "$directory/log"; do
        tries=$((tries + 1))
        if ! kill -0 $server || [ $tries -gt 1200 ]; then
          echo "rot13 has ended, or has not printed 'is ready' within a minute; its output:" >&2
          cat "$directory/log" >&2
          exit 1
        fi
        sleep 0.05
      done
      echo Hello >"$node"
      head -n 1 "$node"
      kill $server
      wait $server
      [ ! -e "$node" ] && echo gone
      """
    let result = try await run(
      .path("/bin/sh"), arguments: ["-c", script],
      environment: .inherit.updating(["repository": Self.repository.string]),
      output: .string(limit: 1 << 16), error: .string(limit: 1 << 20))
    #expect(result.standardOutput == "Uryyb\ngone\n", "\(result.standardError)")
    #expect(result.terminationStatus.isSuccess, "\(result.standardError)")
  }
}
