{{- /* Seconds of a duration of the config: 30s, 1m30s, 500ms. */ -}}
{{- define "kafka-dedup.seconds" -}}
{{- $text := . | toString | nospace -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h))+$" $text) -}}
{{- fail (printf "config.transaction.timeout is %q: the chart has to read it, so write it like 30s, 1m30s or 500ms" $text) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" $text -1 -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{- $sum = add $sum (div (add $number 999) 1000) -}}{{- end -}}
{{- if eq $unit "s" -}}{{- $sum = add $sum $number -}}{{- end -}}
{{- if eq $unit "m" -}}{{- $sum = add $sum (mul $number 60) -}}{{- end -}}
{{- if eq $unit "h" -}}{{- $sum = add $sum (mul $number 3600) -}}{{- end -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{- /* A secret that is written out, anywhere in a map of properties. */ -}}
{{- define "kafka-dedup.refuse-secrets" -}}
{{- range $key, $value := .properties -}}
{{- if and (regexMatch "(?i)(password|passphrase|secret|token|credential|jaas|admin_token|ssl\\.key\\.pem)" $key) (not (regexMatch "(?i)(location|method|endpoint|url)" $key)) (not (contains "${" (toString $value))) -}}
{{- fail (printf "%s.%s is written out, and would be in a ConfigMap for all to read: put it into a Secret, name that under secrets, and write ${file:/run/secrets/...}" $.where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What a schema cannot say: values that do not go together. Each sentence says what to do. */ -}}
{{- define "kafka-dedup.validate" -}}
{{- $config := .Values.config -}}
{{- $kafka := $config.kafka | default dict -}}
{{- if not $config -}}
{{- fail "config is empty: give it the config of the service, at least kafka.bootstrap_servers, kafka.group_id, input.topics and id.from (values.yaml has an example)" -}}
{{- end -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: set it to where your cluster gets the image (docs/image.md has how to build it)" -}}
{{- end -}}
{{- if hasKey $kafka "instance_id" -}}
{{- fail "config.kafka.instance_id is set: remove it; it has to differ in every pod, so the chart takes the pod's name" -}}
{{- end -}}
{{- if hasKey ($config.store | default dict) "path" -}}
{{- fail "config.store.path is set: remove it; the chart mounts the volume at the default, /var/lib/kafka-dedup" -}}
{{- end -}}
{{- if hasKey $config "http" -}}
{{- fail "config.http is set: remove it; probes, PodMonitor and network policy count on port 9464, and the admin port stays on the loopback address" -}}
{{- end -}}
{{- if and $kafka.static_membership (ne .Values.kind "StatefulSet") -}}
{{- fail (printf "config.kafka.static_membership is true, and kind is %s, whose pods have a new name each time: the group would wait for every old one. Set kind to StatefulSet, or static_membership to false" .Values.kind) -}}
{{- end -}}
{{- $timeout := include "kafka-dedup.seconds" (dig "transaction" "timeout" "30s" $config) | int -}}
{{- /* An application ends before its sidecar. */ -}}
{{- $before := ternary 30 0 (eq .Values.kind "Sidecar") -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add $timeout 35 $before | int) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: set it to %d or more, which is config.transaction.timeout and 35 s, in which the process leaves%s" (int .Values.terminationGracePeriodSeconds) (add $timeout 35 $before) (ternary ", and before that 30 s for the application" "" (eq .Values.kind "Sidecar"))) -}}
{{- end -}}
{{- include "kafka-dedup.refuse-secrets" (dict "where" "config.kafka.properties" "properties" ($kafka.properties | default dict)) -}}
{{- include "kafka-dedup.refuse-secrets" (dict "where" "config.kafka.consumer_properties" "properties" ($kafka.consumer_properties | default dict)) -}}
{{- include "kafka-dedup.refuse-secrets" (dict "where" "config.kafka.producer_properties" "properties" ($kafka.producer_properties | default dict)) -}}
{{- include "kafka-dedup.refuse-secrets" (dict "where" "config.schemas" "properties" ($config.schemas | default dict)) -}}
{{- range $number, $variable := .Values.env -}}
{{- include "kafka-dedup.refuse-secrets" (dict "where" (printf "env[%d]" $number) "properties" (dict $variable.name (ternary "${" (toString $variable.value) (hasKey $variable "valueFrom")))) -}}
{{- end -}}
{{- if .Values.keda.enabled -}}
{{- if ne .Values.kind "Deployment" -}}
{{- fail (printf "keda.enabled is true, and kind is %s: only a Deployment is scaled by the lag; set keda.enabled to false, or kind to Deployment" .Values.kind) -}}
{{- end -}}
{{- if eq (default "partition" $config.scope) "topic" -}}
{{- fail "keda.enabled is true, and config.scope is topic: one member reads and the others stand by, so more of them do not help; set keda.enabled to false" -}}
{{- end -}}
{{- if gt (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas) -}}
{{- fail (printf "keda.minReplicas is %d and keda.maxReplicas is %d: make the first the smaller one" (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
