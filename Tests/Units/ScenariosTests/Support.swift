import Foundation
import Scenarios
import Stage2Sim

/// The checkout that contains these tests.
let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent()

/// The folder of the committed recordings, in the checkout. It has a folder for each version of Linux.
let recordingsFolder = "Tests/Recordings"

/// The names of all committed recordings of Linux 6.1.
let recordingNames: [String] = recordedNames(of: .standard)

/// The paths of the committed recordings of all versions: `6.1/facts-a76-page`.
let recordingPaths = KernelVersion.allCases.flatMap { version in
  recordedNames(of: version).map { path(of: $0, version) }
}

func recordedNames(of version: KernelVersion) -> [String] {
  let files = try? FileManager.default.contentsOfDirectory(
    atPath: repository.appending(path: "\(recordingsFolder)/\(version.rawValue)").path())
  return (files ?? []).sorted().filter { $0.hasSuffix(".txt") }.map { String($0.dropLast(4)) }
}

private func path(of name: String, _ version: KernelVersion) -> String {
  "\(version.rawValue)/\(name)"
}

/// All committed recordings of Linux 6.1, read once.
func committedRecordings() throws -> [(name: String, recording: Recording)] {
  try recordingNames.map { (name: $0, recording: try committedRecording($0)) }
}

/// A committed recording of Linux 6.1.
func committedRecording(_ name: String) throws -> Recording {
  try committedRecording(path: path(of: name, .standard))
}

/// A committed recording of any version.
func committedRecording(path: String) throws -> Recording {
  guard let recording = recordings[path] else { throw CocoaError(.fileNoSuchFile) }
  return try recording.get()
}

private let recordings = Dictionary(
  uniqueKeysWithValues: recordingPaths.map { path in
    (path, Result { try Recording(parsing: recordingText(path: path)) })
  })

/// The text of a recording of Linux 6.1.
func recordingText(_ name: String) throws -> String {
  try recordingText(path: path(of: name, .standard))
}

func recordingText(path: String) throws -> String {
  try String(
    contentsOf: repository.appending(path: "\(recordingsFolder)/\(path).txt"), encoding: .utf8)
}
