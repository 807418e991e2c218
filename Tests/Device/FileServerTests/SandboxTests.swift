import CharacterDeviceServer
import Foundation
import Subprocess
import SystemPackage
import Testing

/// Tests of the sandbox, which need root.
@Suite(.timeLimit(.minutes(15))) struct SandboxTests {
  /// The probe, which was built with these tests.
  private let program: FilePath = {
    let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    return FilePath(tests ?? "").removingLastComponent().appending("sandbox-probe")
  }()

  /// The result of each of the probe's attempts.
  private func probe(_ mode: String) async throws -> [String: String] {
    let directory = FilePath("/tmp/sandbox-\(UUID().uuidString)")
    try FileManager.default.createDirectory(
      atPath: directory.string, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: directory.string) }
    for file in ["old", "other"] {
      #expect(
        FileManager.default.createFile(atPath: directory.appending(file).string, contents: nil))
    }
    let result = try await Subprocess.run(
      .path(program), arguments: [directory.string, mode], output: .string(limit: 1 << 16),
      error: .string(limit: 1 << 16))
    #expect(result.terminationStatus.isSuccess, "\(result.standardError)")
    let lines = result.standardOutput.split(separator: "\n").map { $0.split(separator: ": ") }
    return Dictionary(uniqueKeysWithValues: lines.map { (String($0[0]), String($0.last ?? "")) })
  }

  /// Without the sandbox, each attempt works. So the sandbox alone refuses the attempts inside.
  @Test func whatWorksOutsideIsRefusedInside() async throws {
    let outside = try await probe("outside")
    #expect(outside.count == 26)
    #expect(outside.allSatisfy { $0.value == "works" }, "\(outside)")
    var inside = try await probe("inside")
    for allowed in ["thread", "flags"] {
      #expect(inside.removeValue(forKey: allowed) == "works", "\(allowed)")
    }
    #expect(inside.count == 24)
    #expect(inside.allSatisfy { $0.value == "Operation not permitted" }, "\(inside)")
  }

  /// Landlock is the second barrier: it refuses access to files even if seccomp allows the system call.
  @Test func landlockRefusesFiles() async throws {
    let refused = ["open", "mkdir", "create", "rename", "symlink", "unlink", "spawn"]
    let landlock = try await probe("landlock")
    for what in refused { #expect(landlock[what] == "Permission denied", "\(what)") }
    #expect(landlock["mount"] == "Operation not permitted")
  }
}
