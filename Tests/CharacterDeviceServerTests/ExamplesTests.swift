import Foundation
import Subprocess
import SystemPackage
import Testing

/// The devices of Examples and Tests/TestDevice, used by a client in C: scripts/ci/check-examples.
@Suite(.timeLimit(.minutes(10))) struct ExamplesTests {
  private static let repository = FilePath(#filePath).removingLastComponent()
    .removingLastComponent().removingLastComponent()

  /// Built with these tests.
  private static let programs: FilePath = {
    let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    return FilePath(tests ?? "").removingLastComponent()
  }()

  /// Runs a line of shell whose output is TAP, and makes each check that did not pass an issue.
  ///
  /// - Returns: How many checks there were.
  private func check(_ line: String) async throws -> Int {
    let result = try await run(
      .path("/bin/sh"), arguments: ["-c", line], output: .string(limit: 1 << 20),
      error: .string(limit: 1 << 20))
    let lines = result.standardOutput.split(separator: "\n")
    for (index, line) in lines.enumerated() where line.hasPrefix("not ok ") {
      let diagnostics = lines[(index + 1)...].prefix { $0.hasPrefix("#") }
      Issue.record("\(([line] + diagnostics).joined(separator: "\n"))")
    }
    let count = lines.count { $0.hasPrefix("ok ") || $0.hasPrefix("not ok ") }
    #expect(lines.last == "1..\(count)", "\(result.standardOutput)\n\(result.standardError)")
    #expect(result.terminationStatus.isSuccess, "\(result.standardError)")
    return count
  }

  private func compileClient() async throws -> FilePath {
    let client = Self.programs.appending("device-client")
    let compiler = try await run(
      .name("cc"),
      arguments: [
        "-std=gnu11", "-O", "-Wall", "-Wextra", "-Werror", "-static", "-o", client.string,
        "\(Self.repository)/Tests/DeviceClient/client.c",
      ], output: .discarded, error: .string(limit: 1 << 16))
    try #require(compiler.terminationStatus.isSuccess, "\(compiler.standardError)")
    return client
  }

  @Test func devicesWorkOnFUSE() async throws {
    let client = try await compileClient()
    let count = try await check(
      "\(Self.repository)/scripts/ci/check-examples fuse \(Self.programs) \(client)")
    #expect(count >= 140)
  }

  @Test func devicesWorkOnCUSEInAVirtualMachine() async throws {
    let client = try await compileClient()
    let build = Self.repository.appending(".build-static/release")
    let programs = ["mirror", "queue-device", "ioctl-device", "memory-device", "test-device"]
    for program in programs {
      try #require(
        FileManager.default.isExecutableFile(atPath: build.appending(program).string),
        "the virtual machine runs the release build: scripts/test machines makes it")
    }
    let options = programs.map { "--program \(build.appending($0))" }.joined(separator: " ")
    let count = try await check(
      """
      \(Self.repository)/scripts/cuse-vm \(options) --program \(client) \
        --command '/virt-walker/scripts/ci/check-examples cuse /usr/bin /usr/bin/device-client' \
        | tr -d '\\r' | grep -v '^# guest exit status: 0$'
      """)
    #expect(count >= 140)
  }
}
