import Foundation
import Scenarios

/// The checkout that contains these tests.
let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent()

/// The folder of the committed recordings, in the checkout.
let recordingsFolder = "Tests/Recordings/6.1"

/// The names of all committed recordings.
let recordingNames: [String] = {
  let files = try? FileManager.default.contentsOfDirectory(
    atPath: repository.appending(path: recordingsFolder).path())
  return (files ?? []).sorted().filter { $0.hasSuffix(".txt") }.map { String($0.dropLast(4)) }
}()

/// All committed recordings, read once.
func committedRecordings() throws -> [(name: String, recording: Recording)] {
  try recordingNames.map { (name: $0, recording: try committedRecording($0)) }
}

/// A committed recording.
func committedRecording(_ name: String) throws -> Recording {
  guard let recording = recordings[name] else { throw CocoaError(.fileNoSuchFile) }
  return try recording.get()
}

private let recordings = Dictionary(
  uniqueKeysWithValues: recordingNames.map { name in
    (name, Result { try Recording(parsing: recordingText(name)) })
  })

func recordingText(_ name: String) throws -> String {
  try String(
    contentsOf: repository.appending(path: "\(recordingsFolder)/\(name).txt"), encoding: .utf8)
}
