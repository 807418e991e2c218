# From a report of virt-walkerd grade --format json to Gradescope's results.json.
.[0]
| if .graded then
    {
      tests: [
        .checks[] | select(.verdict != "skipped")
        | {
            name: .words,
            score: .points,
            max_score: .of,
            status: .verdict,
            output: (
              [["tried", .tried], ["came", .came], ["expected", .expected], ["at", .at]]
              | map(select(.[1] != null and .[1] != "") | "\(.[0]): \(.[1])") | join("\n")
            )
          }
      ]
    }
  else
    {score: 0, output: .failure}
  end
  + (if (.messages | length) > 0 then {output: (.messages | join("\n"))} else {} end)
